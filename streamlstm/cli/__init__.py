"""The command line. Thin: a command parses its options, calls one function, and prints.

    main.py         the group of commands, and the exit code of every ending
    options.py      -c/--config and --set
    setup.py        init, check
    serve.py        run
    models.py       import, show
    offline.py      forecast
    training.py     train
    backtest.py     backtest, and its tables in backtest_text.py
    memory.py       size
    audit.py        audit
    state.py        state list, get, export, reset

Only click is imported before a command runs, so that `streamlstm --help` answers at once.
"""

from streamlstm.cli.main import main

__all__ = ["main"]
