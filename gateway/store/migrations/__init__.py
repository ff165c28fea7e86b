"""How the tables came to be: one file for each version of the schema, for Alembic.

They only expand: what a file adds has a default, so that the programs of the version before go on writing beside it.
`compatible` in a file is the oldest version whose programs can. What is to go goes a version later, with `compatible`
raised, when nobody runs who knows it.

A file says what it `touches`: the tables that are locked while it runs, on PostgreSQL, where others go on meanwhile.
"""
