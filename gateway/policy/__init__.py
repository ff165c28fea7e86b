"""YAML in, judgement out.

- `document`: a YAML file as plain values that remember their lines; everything clever in YAML is refused.
- `schema`: what a policy file may say; `problems` tells what is wrong with one, all at once.
- `glob`, `criteria`, `access`: the parts of a rule, compiled to plain functions.
- `book`: every rule, indexed by host and by the literal beginning of its paths; `find` gives the candidates.
- `decide`: who is let through; pure.
- `examples`, `explain`: the same judgement, asked by the operator instead of by a request.
- `load`: files to book, all or nothing; `watch`: tells when the files have changed.
"""
