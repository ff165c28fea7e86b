"""The post: what is to be told to a person, and who carries it.

    notices ─┐
             ├─▶ outbox (a table) ─▶ outbox (turns) ─▶ route ─▶ smtp · webhook · console
    codes ───┘

One file for each `Sender`. What it says is in `letter` and `templates`, for phones in `short`.
"""
