"""The worker: an engine's library inside the stack's own interpreter, told what to run.

Nothing here is imported by the plugin. The parent (``engines.workers``) starts this folder
with the stack's interpreter, which needs the engine's libraries and no pytest-joules::

    PYTHON .../pytest_joules/engines/worker FOLDER

(or ``python -m pytest_joules.engines.worker FOLDER`` where it is installed). So modules of
this folder import the standard library, each other, and inside functions the engine's
libraries. A container must see this folder and the launch's at the same paths.

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
