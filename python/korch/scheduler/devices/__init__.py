"""Dynamic resource allocation: which devices of which resource slices a pod's claims get. `plugin` is the scheduler's side of it, `pools`
knows the devices, `selectors` evaluates CEL about them, `allocator` searches."""
