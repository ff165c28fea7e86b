"""One file per command of `sallyport`: `add` describes it, `run` does it and returns the exit code.

What a command needs is imported when it runs: asking for help loads nothing.
"""
