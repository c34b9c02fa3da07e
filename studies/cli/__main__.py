"""``python -m studies.cli`` is ``draftgraph``: launchers such as torchrun take a module."""

from studies.cli.app import main

main()
