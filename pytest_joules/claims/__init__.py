"""The paper, observation by observation: each claim with its rule and published value."""
