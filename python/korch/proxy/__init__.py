"""Service proxying: from Services and EndpointSlices to the kernel's table or the userspace router."""
