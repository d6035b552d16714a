"""The worker: an engine's library inside the stack's own interpreter, told what to run.

The parent (``engines.workers``) starts this folder with the stack's interpreter, which needs
the engine's libraries, but neither pytest-joules nor what that depends on::

    PYTHON .../pytest_joules/engines/worker FOLDER

(or ``python -m pytest_joules.engines.worker FOLDER`` where it is installed). So modules of
this folder import the standard library, each other, modules of pytest-joules that do the same
(``hiding``, ``prompts``, ``steady_state``), and inside functions the engine's libraries. A
container must see this package and the launch's folder at the same paths.

``FOLDER`` holds ``job.json`` (``{"engine": ..., ...}``, which names the module that knows how)
and for each rank two named pipes. Not standard output: libraries write there, and torchrun
passes on no other descriptors.

``orders.RANK``, parent to worker, one JSON object a line
    What to run, as the engine's module reads it; the same to every rank. Its end, by
    whatever means the parent goes, is the order to tear everything down and end with 0.
``events.RANK``, worker to parent, one JSON object a line
    ``{"event": "ready", ...}`` once the engine is built; for each order any number of events
    of the engine's own and ``{"event": "done"}``; ``{"event": "error", "text": ...}`` when an
    exception ends the worker, whose traceback is in its log.

Times are of ``time.monotonic``, which all processes of a machine share.
"""
