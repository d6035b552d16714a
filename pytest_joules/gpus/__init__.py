"""The GPUs of one launch: chosen, held, drained, and told apart from others."""
