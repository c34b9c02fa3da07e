"""``python -m studies.cli`` is ``draftgraph``: launchers such as torchrun take a module."""

from studies.cli import main

if __name__ == "__main__":
    main()
