"""What all peers run: imported by their workers as well, so that every one of them can find it by name."""


def nothing(_=None):
    """The least that there is to do."""


def echo(payload):
    """Sends bytes back."""
    return payload
