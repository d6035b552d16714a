"""Measures on many machines: the nodes of a Ray cluster.

A *cell* is one server key on whole GPUs of one node. On the node runs ``node``, a process
that measures as pytest would there and speaks JSON lines (``wire``); ``carrier`` is the Ray
actor that reserves the GPUs and passes the lines on; ``cluster`` alone knows Ray, and runs in
``driver``, a process beside pytest that ``driven`` speaks with; ``source`` places cells, takes
what they say and replaces the lost; ``survey`` asks nodes what they are, where a session goes
on; ``session`` asks for everything that is open at once.
"""
