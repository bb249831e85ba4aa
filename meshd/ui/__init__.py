"""The web page: its address, its sign-in, and the files that the browser loads.

Belongs here: what the page needs in addition to the API. `meshd.daemon.wiring` runs `WebPage`, and
`meshd.control.facade` creates its sign-in links. The source of the page is in `web/`.
"""
