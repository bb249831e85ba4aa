"""The proxies to compare, all with the same setup.

Keep-alive to one origin, forwarded headers, a request id if the proxy has one, no log unless the
scene wants one.

A contender writes its configuration into a directory and returns the command that serves in the
foreground. Programs that are not installed are left out.
"""

import os
import resource
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

COMPILED: Final = Path(__file__).parent.parent / "build" / "compiled"


@dataclass(frozen=True)
class Setting:
    """What a proxy must do. `home` is an empty directory for it."""

    home: Path
    port: int
    origin: int
    workers: int = 1
    log: bool = False

    def write(self, name: str, text: str) -> str:
        """Write a file in `home`; return its path."""
        path = self.home / name
        path.write_text(text)
        return str(path)


def ours(setting: Setting) -> list[str]:
    command = [sys.executable, "-m", "meshd.cli.main", "proxy"]
    command += ["--listen", f"127.0.0.1:{setting.port}", "--to", f"127.0.0.1:{setting.origin}"]
    command += ["--workers", str(setting.workers)]
    if setting.log:
        command += ["--access-log", "on", "--access-log-file", str(setting.home / "access.log")]
    return command


def ours_compiled(setting: Setting) -> list[str]:
    return ["env", f"PYTHONPATH={COMPILED}", sys.executable, "-P", *ours(setting)[1:]]


def nginx(setting: Setting) -> list[str]:
    log = f"{setting.home}/access.log combined buffer=64k" if setting.log else "off"
    text = f"""
daemon off; worker_processes {setting.workers}; pid {setting.home}/pid;
error_log {setting.home}/error.log; worker_rlimit_nofile 60000;
events {{ worker_connections 30000; }}
http {{
  access_log {log}; keepalive_requests 1000000000; keepalive_timeout 600;
  client_body_temp_path {setting.home}; proxy_temp_path {setting.home};
  fastcgi_temp_path {setting.home}; uwsgi_temp_path {setting.home}; scgi_temp_path {setting.home};
  upstream origin {{ server 127.0.0.1:{setting.origin}; keepalive 1024;
    keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{setting.port} backlog=4096;
    location / {{
      proxy_pass http://origin; proxy_http_version 1.1;
      proxy_set_header Connection ""; proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Request-Id $request_id;
    }}
  }}
}}"""
    return ["nginx", "-p", str(setting.home), "-c", setting.write("nginx.conf", text)]


def haproxy(setting: Setting) -> list[str]:
    log = f"log {setting.home}/log.sock local0\n  option httplog" if setting.log else ""
    text = f"""
global
  nbthread {setting.workers}
  maxconn {max_connections()}
defaults
  mode http
  timeout connect 2s
  timeout client 600s
  timeout server 60s
  timeout http-keep-alive 600s
  option forwardfor
  http-reuse always
  {log}
frontend in
  bind 127.0.0.1:{setting.port} backlog 4096
  unique-id-format %{{+X}}o\\ %ci:%cp_%fi:%fp_%Ts_%rt:%pid
  unique-id-header X-Request-Id
  http-request set-header X-Forwarded-Proto http
  default_backend out
backend out
  server origin 127.0.0.1:{setting.origin} pool-max-conn 2048
"""
    return ["haproxy", "-db", "-f", setting.write("haproxy.cfg", text)]


def envoy(setting: Setting) -> list[str]:
    log = (
        f"""
          access_log:
          - name: file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: {setting.home}/access.log"""
        if setting.log
        else ""
    )
    manager = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    text = f"""
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {setting.port}}}}}
    tcp_backlog_size: 4096
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/{manager}
          stat_prefix: in
          use_remote_address: true
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{{match: {{prefix: /}}, route: {{cluster: origin, timeout: 60s}}}}]
          http_filters:
          - name: router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router{log}
  clusters:
  - name: origin
    connect_timeout: 2s
    circuit_breakers: {{thresholds: [{{max_connections: 4096, max_requests: 4096}}]}}
    load_assignment:
      cluster_name: origin
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address:
        {{address: 127.0.0.1, port_value: {setting.origin}}}}}}}}}]}}]
"""
    path = setting.write("envoy.yaml", text)
    flags = ["--concurrency", str(setting.workers), "--log-level", "error", "--use-dynamic-base-id"]
    return ["envoy", "-c", path, *flags]


def traefik(setting: Setting) -> list[str]:
    routes = f"""
http:
  routers: {{all: {{rule: "PathPrefix(`/`)", service: origin}}}}
  services:
    origin:
      loadBalancer: {{servers: [{{url: "http://127.0.0.1:{setting.origin}"}}]}}
"""
    file = setting.write("routes.yaml", routes)
    command = ["traefik", f"--entrypoints.in.address=127.0.0.1:{setting.port}"]
    command += [f"--providers.file.filename={file}", "--log.level=ERROR"]
    command += ["--global.sendanonymoususage=false", "--global.checknewversion=false"]
    command += ["--serverstransport.maxidleconnsperhost=1024"]
    if setting.log:
        command += [
            f"--accesslog.filepath={setting.home}/access.log",
            "--accesslog.bufferingsize=100",
        ]
    return ["env", f"GOMAXPROCS={setting.workers}", *command]


def caddy(setting: Setting) -> list[str]:
    log = f"log {{\n output file {setting.home}/access.log\n }}" if setting.log else ""
    text = f"""{{
  admin off
  auto_https off
  persist_config off
}}
http://127.0.0.1:{setting.port} {{
  bind 127.0.0.1
  {log}
  reverse_proxy 127.0.0.1:{setting.origin} {{
    transport http {{
      keepalive_idle_conns_per_host 1024
    }}
  }}
}}
"""
    command = ["caddy", "run", "--adapter", "caddyfile"]
    command += ["--config", setting.write("Caddyfile", text)]
    return ["env", f"GOMAXPROCS={setting.workers}", f"HOME={setting.home}", *command]


def aiohttp(setting: Setting) -> list[str]:
    command = [sys.executable, "-m", "bench.plain_aiohttp", str(setting.port), str(setting.origin)]
    return [*command, str(setting.workers)]


CONTENDERS: Final[dict[str, Callable[[Setting], list[str]]]] = {
    "ours": ours,
    "ours-compiled": ours_compiled,
    "nginx": nginx,
    "haproxy": haproxy,
    "envoy": envoy,
    "traefik": traefik,
    "caddy": caddy,
    "aiohttp": aiohttp,
}
LOGS: Final = frozenset(("ours", "ours-compiled", "nginx", "envoy", "traefik", "caddy"))


def max_connections() -> int:
    """Return the connection limit for HAProxy: it needs two descriptors per connection."""
    return min(30_000, (resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 400) // 2)


def installed(name: str) -> bool:
    """Return whether a contender's program is on the PATH.

    `ours` and `aiohttp` always are; `ours-compiled` is if `make compile` has run.
    """
    if name == "ours-compiled":
        return COMPILED.exists()
    return name in ("ours", "aiohttp") or shutil.which(name) is not None


def origin(home: Path, port: int) -> list[str]:
    """Return the command of the origin: nginx with fixed answers, varying answers, and two
    files."""
    (home / "files").mkdir()
    (home / "files" / "100k").write_bytes(os.urandom(100 * 1024))
    (home / "files" / "10m").write_bytes(os.urandom(10 * 1024 * 1024))
    body = '{"id":12345,"status":"delivered","items":[{"sku":"A-1","n":2}],"total":"23.40"}'
    text = f"""
daemon off; worker_processes 1; pid {home}/pid; error_log {home}/error.log;
worker_rlimit_nofile 60000;
events {{ worker_connections 30000; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 600; sendfile on;
  client_body_temp_path {home}; proxy_temp_path {home}; fastcgi_temp_path {home};
  uwsgi_temp_path {home}; scgi_temp_path {home}; client_body_buffer_size 64k;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{ default_type application/json; return 200 '{body}'; }}
    location /files/ {{ root {home}; }}
    location /varied/ {{
      default_type application/json; add_header ETag '"$request_id"'; return 200 '{body}$uri';
    }}
    location /echo/ {{
      return 200 '$request_method $request_uri $http_x_request_tag $http_cookie';
    }}
  }}
}}"""
    path = home / "origin.conf"
    path.write_text(text)
    return ["nginx", "-p", str(home), "-c", str(path)]
