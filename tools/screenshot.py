"""Take a picture of the fleet page: `tools/screenshot.py URL --token-file F -o docs/dashboard.png`.

Uses playwright from the development requirements, and the Chromium of the system (`apt-get install chromium`).
"""

import argparse
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Error, Page, sync_playwright

QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
LIVE_MS = 20_000


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the system's Chromium, which asks nobody for anything."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        raise SystemExit("error: no Chromium found\n\nhint: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(QUIET))
        try:
            yield browser
        finally:
            browser.close()


def log_in(page: Page, url: str, token: str) -> bool:
    """Log in, and wait until the page is live; return False when the server refuses the token."""
    page.goto(f"{url.rstrip('/')}/login")
    page.fill("#token", token)
    page.click("button.primary")
    page.wait_for_selector('#link[data-state="live"], .login .refused', timeout=LIVE_MS)
    return page.query_selector(".login .refused") is None


def main(arguments: Sequence[str]) -> int:
    """Take the picture; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="address of the fleet server")
    parser.add_argument("--token-file", type=Path, required=True, help="file with an operator's token")
    parser.add_argument("-o", "--output", type=Path, required=True, help="PNG to write")
    parser.add_argument("--width", type=int, default=1240)
    parser.add_argument("--height", type=int, default=760, help="the picture grows with the page")
    parser.add_argument("--dark", action="store_true", help="the night colours")
    options = parser.parse_args(arguments)
    token = options.token_file.read_text().strip()
    try:
        with chromium() as browser:
            context = browser.new_context(
                ignore_https_errors=True,  # the fleet's own CA; the picture is taken on the server itself
                viewport={"width": options.width, "height": options.height},
                device_scale_factor=2,
                color_scheme="dark" if options.dark else "light",
            )
            page = context.new_page()
            if not log_in(page, options.url, token):
                return fail(f"{options.url}: nobody has the token in {options.token_file}", "name an operator's token")
            page.screenshot(path=options.output, full_page=True)
    except Error as error:
        return fail(f"{options.url}: {error.message.splitlines()[0]}", "is `fleet serve` running?")
    return 0


def fail(what: str, hint: str) -> int:
    """Say what went wrong and what to do; returns the exit code."""
    sys.stderr.write(f"error: {what}\n\nhint: {hint}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
