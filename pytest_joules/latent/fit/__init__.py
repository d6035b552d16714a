"""The fit: parameters of each GPU from published rows, and the error on unseen models.

Run ``python -m pytest_joules.latent.fit DATA``.
"""
