"""`python -m streamlstm` is the console script `streamlstm`."""

from streamlstm.cli import main

main()
