"""The clients of the lunch rush: `locust -f demo_services/locustfile.py -H http://HOST:PORT`.

Guests search, read menus, order, and follow their courier. The load is low, then high, then low
again. LUNCH_SECONDS (default 90), LUNCH_QUIET (8 users) and LUNCH_RUSH (70 users) change it.
`scenario` starts it and reads the totals that it writes.
"""

import json
import os
import random

import gevent
from locust import FastHttpUser, LoadTestShape, between, events, task
from locust.env import Environment

SECONDS = float(os.environ.get("LUNCH_SECONDS", "90"))
QUIET = int(os.environ.get("LUNCH_QUIET", "8"))
RUSH = int(os.environ.get("LUNCH_RUSH", "70"))
WORDS = ("thai", "pizza", "sushi", "golden garden", "vegan", "ramen house", "greek", "lucky")


class Guest(FastHttpUser):
    """One guest. `name` groups requests in locust's statistics."""

    wait_time = between(0.2, 0.8)
    connection_timeout = 10.0
    network_timeout = 30.0

    def on_start(self) -> None:
        """Log in once."""
        self.token = ""
        name = f"guest-{random.randrange(10**6)}"
        with self.client.post(
            "/auth/login", json={"user": name}, name="POST /auth/login", catch_response=True
        ) as response:
            if response.status_code == 200:
                self.token = response.json()["token"]
            else:
                response.failure(f"status {response.status_code}")

    @task(6)
    def search(self) -> None:
        """Search for restaurants."""
        words = random.choice(WORDS).replace(" ", "+")
        self.client.get(f"/restaurants?q={words}", name="GET /restaurants")

    @task(3)
    def menu(self) -> None:
        """Read a menu."""
        number = random.randint(1, 3000)
        self.client.get(f"/restaurants/{number}/menu", name="GET /restaurants/ID/menu")

    @task(2)
    def order(self) -> None:
        """Order, then read the order."""
        with self.client.post(
            "/orders",
            json={"restaurant": random.randint(1, 3000), "dishes": [1, random.randint(2, 6)]},
            headers={"Authorization": f"Bearer {self.token}"},
            name="POST /orders",
            catch_response=True,
        ) as response:
            if response.status_code != 201:
                response.failure(f"status {response.status_code}: {response.text[:200]}")
                return
            key = response.json()["id"]
        self.client.get(f"/orders/{key}", name="GET /orders/ID")

    @task(1)
    def follow(self) -> None:
        """Follow a courier for a few seconds. The stream must be complete."""
        with self.client.get(
            f"/tracking/{random.randrange(10**6)}?seconds=3",
            name="GET /tracking/ID (stream)",
            stream=True,
            catch_response=True,
        ) as response:
            text = b""
            if response.status_code == 200:
                text = b"".join(response.iter_content(1024, decode_content=False))
            if b"event: end" not in text:
                response.failure(
                    f"status {response.status_code}, stream cut after {len(text)} bytes"
                )


class LunchRush(LoadTestShape):
    """Low load for the first 22 % of the time, high load until 60 %, then low load again."""

    def tick(self) -> tuple[int, float] | None:
        """Return the number of users, and how many to start per second; None ends the test."""
        fraction = self.get_run_time() / SECONDS
        if fraction >= 1:
            return None
        return (RUSH, RUSH / 4) if 0.22 <= fraction < 0.6 else (QUIET, RUSH / 4)


@events.init.add_listener
def follow_totals(environment: Environment, **_: object) -> None:
    """Write the totals to $LUNCH_REPORT every second, for the live display of `scenario`."""
    path = os.environ.get("LUNCH_REPORT")
    if not path:
        return

    def write() -> None:
        total = environment.stats.total
        # A guest that ends with an exception has failed too, though locust counts no request.
        broken = list(environment.runner.exceptions.values()) if environment.runner else []
        figures = {
            "served": total.num_requests - total.num_failures,
            "failed": total.num_failures + sum(each["count"] for each in broken),
            "users": environment.runner.user_count if environment.runner else 0,
            "rps": total.current_rps,
            "p50_ms": total.get_response_time_percentile(0.5),
            "p95_ms": total.get_response_time_percentile(0.95),
            "p99_ms": total.get_response_time_percentile(0.99),
            "errors": [
                {"request": f"{e.method} {e.name}", "error": str(e.error), "count": e.occurrences}
                for e in environment.stats.errors.values()
            ]
            + [
                {"request": "a guest", "error": each["msg"], "count": each["count"]}
                for each in broken
            ],
        }
        with open(f"{path}.part", "w") as file:
            json.dump(figures, file)
        os.replace(f"{path}.part", path)

    def loop() -> None:
        while True:
            write()
            gevent.sleep(1)

    gevent.spawn(loop)
    environment.events.quitting.add_listener(lambda **_: write())
