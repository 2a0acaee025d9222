"""`python -m unipeft_run COMMAND ...` is `unipeft COMMAND ...`."""

from unipeft_run.commands.dispatch import main

if __name__ == "__main__":
    main()
