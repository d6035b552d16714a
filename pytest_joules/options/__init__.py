"""What a user sets: options in ``declared``, all of them as one frozen value in ``frozen``.

Nothing is imported here: every run of pytest loads what is declared, and only that.
"""
