"""Run `python -m unipeft_run COMMAND ...` as `unipeft COMMAND ...`."""

from unipeft_run.commands.dispatch import main

if __name__ == "__main__":
    main()
