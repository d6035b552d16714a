"""Scripts, run by hand; only ``test_*.py`` is collected here."""

collect_ignore_glob = ["gate_*.py"]
