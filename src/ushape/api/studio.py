"""Open the page on which images are viewed, annotated and corrected."""

from __future__ import annotations

import webbrowser
from pathlib import Path

from ushape.console import Console
from ushape.errors import require_package


def open_studio(
    data: Path | str,
    images: Path | str | None = None,
    *,
    port: int = 8765,
    masks: Path | str | None = None,
    no_browser: bool = False,
    quiet: bool = False,
) -> None:
    """Open a page to annotate images, train and correct masks.

    The page is served only on this computer; open it with the printed address. Press Ctrl-C to stop
    it.

    Args:
        data: Folder with images, with or without masks, a table of them, or a run folder.
        images: Folder with additional images.
        port: Port number; 0 chooses a free port.
        masks: Folder with the masks, if the data folder contains only images; or a pattern for
            their names, such as 'DATA/*_mask.png'.
        no_browser: Print the address without opening a browser.
        quiet: Print nothing but the address.

    Raises:
        DataError: if there are no images, or if the masks cannot be used.
        RunError: if a run is incomplete, or if another studio has opened the folder.
        ConfigError: if the port is used by another program.
        MissingPackageError: if the packages of the extra `serve` are not installed.
    """
    require_package("fastapi", "serve", "The studio")
    require_package("uvicorn", "serve", "The studio")
    from ushape.serving.safety import Gate
    from ushape.serving.server import address_of, open_listener, run_server
    from ushape.studio.access import Access
    from ushape.studio.app import build_app
    from ushape.studio.project import Project
    from ushape.studio.session import Studio

    console = Console(quiet=quiet)
    more_images = Path(images) if images is not None else None
    with open_listener("127.0.0.1", port) as listener:
        opened = Studio(Project(Path(data), more_images, masks=masks))
        try:
            for line in opened.project.listing.notes:
                console.say(line)
            access = Access.of_folder(opened.project.state, listener.getsockname()[1])
            address = f"{address_of(listener)}/?token={access.token}"
            print(f"Studio: {address} (press Ctrl-C to end it)", flush=True)
            if not no_browser:
                webbrowser.open(address)
            gate = Gate()
            run_server(build_app(opened, gate, access), listener, gate, stop_s=5)
        finally:
            if opened.jobs.is_running:
                console.say("The running job is stopped; a training run keeps its best weights.")
            opened.close()
