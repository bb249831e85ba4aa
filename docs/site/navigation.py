"""The order of the site's pages. Pure.

`docs.site.stage` writes the contents from it. A page without a place here is appended to the how-to
guides, so that a new page is found from the day that it is written.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Section:
    """A part of the navigation.

    - `title`: its heading
    - `pages`: paths of pages under `docs/` without `.md`, in order, with a line about each
    """

    title: str
    pages: dict[str, str]


HOW_TO: Final = "How-to guides"
SECTIONS: Final = (
    Section(
        "Start",
        {
            "getting-started": "Install meshd and run your own Compose file in five minutes.",
            "concepts": "The mental model: what runs, how a request flows, how a decision is made.",
        },
    ),
    Section(
        HOW_TO,
        {
            "how-to": "Recipes for everyday tasks.",
            "rollouts": "How a new revision is rolled out, analyzed and undone.",
            "runbooks": "What to do about each alert.",
            "many-machines": "Several machines with Docker Swarm.",
            "volumes": "Backups and restores of volumes, PostgreSQL.",
            "web": "The web page: views, sign-in, address.",
            "notify": "Messages to webhooks when something is wrong.",
            "state": "The state directory, backups, several meshes on one engine.",
        },
    ),
    Section(
        "Coming from",
        {
            "coming-from/compose": "From `docker compose up` to balanced and scaled services.",
            "coming-from/traefik": "Routers and middlewares, and what they are here.",
            "coming-from/kamal": "Releases without downtime, from a Compose file.",
            "coming-from/swarm": "Stacks and services, with a proxy and an autoscaler on top.",
            "coming-from/kubernetes": "Deployments, Services, Ingress and HPA in one file.",
        },
    ),
    Section(
        "Reference",
        {
            "compose": "Every key of the Compose file.",
            "reference/x-mesh": "Every key of `x-mesh`, generated from the code.",
            "reference/labels": "Every container label, generated from the code.",
            "reference/cli": "Every command and option, generated from the code.",
            "proxy": "The proxy: policies, defaults, errors.",
            "autoscaler": "How the number of replicas is decided; the simulator.",
            "metrics": "Every metric, with its labels.",
            "api": "The HTTP API and its access rules.",
            "reference/api": "Every operation and type of the API, generated from the code.",
            "performance": "The cost of a request, compared with nginx and others.",
        },
    ),
    Section(
        "Development",
        {
            "ARCHITECTURE": "The structure of the code, its invariants and decisions.",
            "state-machines": "The states of requests, replicas, rollouts and jobs.",
            "CONTRIBUTING": "How to work on the code.",
            "glossary": "Every public type.",
            "changelog": "What changed.",
        },
    ),
)


def arrange(pages: Collection[str]) -> tuple[Section, ...]:
    """Return the sections with the given pages only, and each of them exactly once."""
    named = {page for section in SECTIONS for page in section.pages}
    more = dict.fromkeys(sorted(set(pages) - named), "")
    found = []
    for section in SECTIONS:
        kept = {page: text for page, text in section.pages.items() if page in pages}
        found.append(Section(section.title, kept | (more if section.title == HOW_TO else {})))
    return tuple(section for section in found if section.pages)
