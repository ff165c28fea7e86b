"""`python -m gateway` is `sallyport`."""

from gateway.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
