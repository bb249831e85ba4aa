"""From files to one tree: YAML, variables, `include`, `extends` and merging."""
