"""Where results come from: live measurements, recorded ones, simulated ones."""
