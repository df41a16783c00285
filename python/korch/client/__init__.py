"""How components see a cluster: the Client protocol, its HTTP form, informers, work queues, leases."""
