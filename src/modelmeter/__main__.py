"""`python -m modelmeter` is the command `modelmeter`."""

from modelmeter.cli import main

main()
