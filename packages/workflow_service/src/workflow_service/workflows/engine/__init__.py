"""
The engine: workflows that are written down in YAML or JSON.

`source` reads a file and knows the place of each value; `schemas` checks its structure and `reading` its meaning;
`definition` is what comes out. `workflow` runs it: `asking` does one step, `kept` keeps how it ended. `dry_run`
tells what would happen; `loading` finds the files.
"""
