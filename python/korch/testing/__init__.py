"""Clusters for tests: the whole control plane on virtual time, a faulty network, nodes without machines, and rules that always hold.

`cluster` is the simulation and its vocabulary, `served` a real server as a process, `plugin` makes pytest fixtures of both, `loop` and
`network` are time and wire, `hollow` the nodes, `checkers` the rules, `objects` short makers of objects, and `bare` a server of one file
for unit tests of clients.
Product code never imports this package, except to run hollow nodes on request.
"""
