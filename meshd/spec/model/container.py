"""The parts of a container as Compose defines them: mounts, build, resources, restarts and so on.

Used by `meshd.spec.model.service`. These models hold standard Compose keys only; `x-mesh` is in the
other modules of this package.
"""

from typing import Literal, TypeAlias

from meshd.spec.model.base import Duration, Model, Port, Size

UpdateOrder: TypeAlias = Literal["start-first", "stop-first"]
RestartCondition: TypeAlias = Literal["none", "on-failure", "any"]


class Mount(Model):
    """A mount: a volume, a host directory or file, a tmpfs, an image, or a file with given content.

    - `source`: a volume's key, a host path or an image; empty for an anonymous volume
    - `size`: the size limit of a tmpfs in bytes; 0 means no limit
    - `options`: the options of a tmpfs in the form of mount(8), if it has others than a size
    - `volume_name`: the volume's name on the engine; empty for `PROJECT_KEY`
    - `external`: the volume exists already, and meshd neither creates nor removes it
    - `nocopy`: the engine does not copy the image's files into an empty volume
    - `must_exist`: the engine does not create a missing host directory
    - `propagation`: the propagation of a bind mount, such as `rslave`; empty for the default
    - `selinux`: `z` or `Z`, the label that the engine gives a host directory; empty for none
    - `recursive`: whether mounts below a bind mount are included, and whether they are read-only;
      empty for the default
    - `subpath`: the directory in a volume or image that is mounted; empty for all of it
    - `volume_driver`, `volume_options`, `volume_labels`: how the volume is created
    - `content`: the content of a `file`, which meshd writes into the container before its start
    - `mode`, `uid`, `gid`: the mode and the owner of a `file`
    - `version`: identifies the content of a secret or config file, so that new content is a new
      revision (a running container keeps the file it was started with)
    - `is_file`: whether the source of a bind mount was a file, socket or device when the Compose
      file was read, not a directory; not part of the revision
    """

    type: Literal["bind", "volume", "tmpfs", "file", "image"]
    target: str
    source: str = ""
    read_only: bool = False
    size: Size = 0
    version: str = ""
    options: str = ""
    volume_name: str = ""
    external: bool = False
    nocopy: bool = False
    must_exist: bool = False
    propagation: str = ""
    content: str = ""
    mode: int = 0
    uid: int = 0
    gid: int = 0
    is_file: bool = False
    selinux: Literal["", "z", "Z"] = ""
    recursive: Literal["", "enabled", "disabled", "writable", "readonly"] = ""
    subpath: str = ""
    volume_driver: str = ""
    volume_options: dict[str, str] = {}
    volume_labels: dict[str, str] = {}

    @property
    def holds_data(self) -> bool:
        """Whether containers can write data here that outlives them: a volume or a host directory
        that is not read-only."""
        return self.type in ("bind", "volume") and not self.read_only and not self.is_file


class Ulimit(Model):
    """A kernel limit on the processes of a replica; -1 means no limit."""

    soft: int
    hard: int


def is_remote_context(text: str) -> bool:
    """Whether a build context is a URL, which the engine fetches, and not a directory."""
    return "://" in text or text.startswith(("git@", "github.com/"))


class Build(Model):
    """How to build the image.

    - `context`: an absolute path, or a URL that the engine fetches
    - `dockerfile`: a path relative to the context
    - `dockerfile_inline`: the content of the Dockerfile; empty if it is a file
    - `digest`: a hash of the context's content at deployment, so that new content is a new
      revision; empty if the context was not read
    - `additional_contexts`: directories, URLs, images or `service:NAME`, by name
    - `secrets`: paths of files, by the id that the Dockerfile uses; `secret_values`: contents
    - `cache_to`, `no_cache_filter`: where BuildKit exports its cache, and stages that do not use it
    - `ssh`: paths of keys or sockets by id; empty for those of the user's agent
    - `network`: the network of the build's containers; empty for the engine's default
    - `extra_hosts`: addresses by name; several addresses are separated by commas
    - `shm_size`: bytes; 0 for the engine's default
    """

    context: str
    dockerfile: str = "Dockerfile"
    args: dict[str, str] = {}
    target: str = ""
    digest: str = ""
    dockerfile_inline: str = ""
    additional_contexts: dict[str, str] = {}
    cache_from: tuple[str, ...] = ()
    entitlements: tuple[str, ...] = ()
    extra_hosts: dict[str, str] = {}
    labels: dict[str, str] = {}
    network: str = ""
    no_cache: bool = False
    platforms: tuple[str, ...] = ()
    privileged: bool = False
    pull: bool = False
    secrets: dict[str, str] = {}
    secret_values: dict[str, str] = {}
    cache_to: tuple[str, ...] = ()
    no_cache_filter: tuple[str, ...] = ()
    shm_size: Size = 0
    ssh: dict[str, str] = {}
    tags: tuple[str, ...] = ()
    ulimits: dict[str, Ulimit] = {}

    @property
    def is_remote(self) -> bool:
        """Whether the engine fetches the context."""
        return is_remote_context(self.context)


class Healthcheck(Model):
    """Compose `healthcheck`: the container's own check. Times are in seconds.

    - `test`: the command in the engine's form: `CMD` and words, or `CMD-SHELL` and a line; empty
      for that of the image
    - `start_interval`: the time between checks in the start period; 0 for the engine's default
    - `inherited`: the values that the file does not give; those of the image hold, or else the
      engine's defaults
    """

    test: tuple[str, ...] = ()
    interval: Duration = 30.0
    timeout: Duration = 30.0
    retries: int = 3
    start_period: Duration = 0.0
    start_interval: Duration = 0.0
    disable: bool = False
    inherited: tuple[str, ...] = ()


class Logging(Model):
    """The engine's log driver and its options; an empty driver means the engine's default."""

    driver: str = ""
    options: dict[str, str] = {}


class PublishedPort(Model):
    """One port of the container that is published on the host.

    - `target`: the port inside the container
    - `published`: the port on the host, or a range `8000-8010` of which one free port is taken;
      empty for a free port that the engine or the kernel chooses
    - `host_ip`: the address on the host; empty for all addresses
    """

    target: Port
    published: str = ""
    host_ip: str = ""
    protocol: Literal["tcp", "udp", "sctp"] = "tcp"

    def __str__(self) -> str:
        address = f"[{self.host_ip}]" if ":" in self.host_ip else self.host_ip
        outside = ":".join(filter(None, (address, self.published)))
        return (
            f"{outside}:{self.target}/{self.protocol}"
            if outside
            else f"{self.target}/{self.protocol}"
        )


class DeviceRequest(Model):
    """GPUs or other devices of a replica, as the engine's device requests name them.

    - `count`: the number of devices; -1 means all
    - `device_ids`: the devices by id, in place of a number
    """

    driver: str = ""
    count: int = 0
    device_ids: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ("gpu",)
    options: dict[str, str] = {}


class BlockDevice(Model):
    """A limit for one block device.

    - `value`: a weight from 10 to 1000, bytes per second, or operations per second
    """

    path: str
    value: int


class BlockIo(Model):
    """Compose `blkio_config`: the share and the limits of disk access; 0 means none."""

    weight: int = 0
    weight_device: tuple[BlockDevice, ...] = ()
    device_read_bps: tuple[BlockDevice, ...] = ()
    device_read_iops: tuple[BlockDevice, ...] = ()
    device_write_bps: tuple[BlockDevice, ...] = ()
    device_write_iops: tuple[BlockDevice, ...] = ()


class EngineOptions(Model):
    """Compose keys that go to the engine as they are; an empty value means the engine's default.

    - `container_name`: the name of the container of a plain service with one replica
    - `network_mode`: `host`, `none`, `bridge`, `service:NAME` or `container:NAME`, in place of
      networks; `ipc` and `pid` take the last two forms as well
    - `volumes_from`: `NAME`, `NAME:ro` or `container:NAME`, whose mounts the container gets too
    - `links`, `external_links`: `NAME` or `NAME:ALIAS` of a service or a container
    - `cpu_count`, `cpu_percent`: have an effect on Windows only
    - `cpu_period`, `cpu_quota`, `cpu_rt_period`, `cpu_rt_runtime`: microseconds
    - `memswap_limit`: bytes of memory and swap together; -1 means no limit
    - `mem_swappiness`: 0 to 100; None means the host's
    """

    container_name: str = ""
    network_mode: str = ""
    mac_address: str = ""
    privileged: bool = False
    tty: bool = False
    stdin_open: bool = False
    platform: str = ""
    annotations: dict[str, str] = {}
    blkio_config: BlockIo = BlockIo()
    volumes_from: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    external_links: tuple[str, ...] = ()
    cpu_count: int = 0
    cpu_percent: int = 0
    hostname: str = ""
    domainname: str = ""
    cpuset: str = ""
    cpu_shares: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_rt_period: int = 0
    cpu_rt_runtime: int = 0
    memswap_limit: int = 0
    mem_swappiness: int | None = None
    oom_score_adj: int = 0
    oom_kill_disable: bool = False
    ipc: str = ""
    pid: str = ""
    uts: str = ""
    cgroup: str = ""
    cgroup_parent: str = ""
    userns_mode: str = ""
    runtime: str = ""
    storage_opt: dict[str, str] = {}
    devices: tuple[str, ...] = ()
    device_cgroup_rules: tuple[str, ...] = ()
    gpus: tuple[DeviceRequest, ...] = ()

    @property
    def shared_namespaces(self) -> tuple[str, ...]:
        """The services whose namespaces it shares."""
        shared = (self.network_mode, self.ipc, self.pid)
        found = [each.removeprefix("service:") for each in shared if each.startswith("service:")]
        return tuple(dict.fromkeys(found))

    @property
    def shared_services(self) -> tuple[str, ...]:
        """The services whose containers this one shares a namespace or mounts with. It is created
        again when they are."""
        mounts = [each for each in self.volumes_from if not each.startswith("container:")]
        names = (*self.shared_namespaces, *(each.partition(":")[0] for each in mounts))
        return tuple(dict.fromkeys(names))

    @property
    def linked_services(self) -> tuple[str, ...]:
        """The services that `links` names."""
        return tuple(dict.fromkeys(each.partition(":")[0] for each in self.links))


class Resources(Model):
    """Limits and reservations of a replica; 0 means none.

    - `cpus`, `reserved_cpus`: CPU cores
    - `memory`, `reserved_memory`: bytes
    - `pids`: processes and threads
    """

    cpus: float = 0.0
    memory: Size = 0
    pids: int = 0
    reserved_cpus: float = 0.0
    reserved_memory: Size = 0


class ContainerHook(Model):
    """One entry of Compose `post_start` and `pre_stop`: a command in the container of a replica.
    Empty values mean those of the container.

    - `environment`: variables in addition to those of the container
    """

    command: tuple[str, ...] = ()
    user: str = ""
    privileged: bool = False
    working_dir: str = ""
    environment: dict[str, str] = {}


class InitContainer(ContainerHook):
    """One entry of Compose `pre_start`: a container that runs to its end before the service starts.

    - `image`: empty for the image of the service
    - `per_replica`: whether it runs before each replica, not only once for a rollout
    """

    image: str = ""
    per_replica: bool = False


class UpdateConfig(Model):
    """Compose `deploy.update_config`: how a new revision replaces the old one.

    - `parallelism`: replicas replaced at a time
    - `order`: None if the file does not say; see `Service.update_order`
    - `delay`: seconds between two steps
    - `monitor`: seconds to watch the last step
    - `max_failure_ratio`: the tolerated share of failures, 0 to 1
    """

    parallelism: int = 1
    order: UpdateOrder | None = None
    delay: Duration = 0.0
    monitor: Duration = 5.0
    failure_action: Literal["pause", "continue", "rollback"] = "rollback"
    max_failure_ratio: float = 0.0


class RestartPolicy(Model):
    """Compose `restart` and `deploy.restart_policy`: when to restart a replica that ended. Times
    are in seconds.

    - `condition`: None if the file does not say; see `Service.restart_condition`
    - `delay`: the first delay; it doubles with every crash, with jitter, up to `max_delay`
    - `window`: a replica that runs this long ends a series of crashes
    - `max_attempts`: restarts in a series of crashes; 0 means no limit
    """

    condition: RestartCondition | None = None
    delay: Duration = 1.0
    max_delay: Duration = 60.0
    window: Duration = 30.0
    max_attempts: int = 0
