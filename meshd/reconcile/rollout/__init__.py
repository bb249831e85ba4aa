"""Rollouts: stages, canary analysis, hooks and outcome. Pure, except the analysis feed."""
