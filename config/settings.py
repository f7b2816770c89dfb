"""Settings: one TOML file, every value overridable from the environment; refused at start when anything is wrong.

The file is ``$VMFERRY_CONFIG``, else ``./vmferry.toml``, else ``/etc/vmferry/vmferry.toml``. A value ``a.b`` of it
is ``VMFERRY_A__B`` in the environment. Unknown keys are errors: a typing mistake never silently means "default".
What must not be seen there, such as a ``broker_url`` with its password, can be a secret: a file ``vmferry_broker_url``
in ``/run/secrets``, where container engines put them, or in ``$CREDENTIALS_DIRECTORY``, where systemd does.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit, urlunsplit

from pydantic import (
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SecretsSettingsSource, SettingsConfigDict

from config.recurring import RecurringDrainSettings, RecurringName
from config.section import Section
from config.shared import LinkSettings, PoolPlace, PoolSettings
from tasks.model.drain import DrainState
from tasks.model.errors import ConfigurationError
from tasks.model.request import HostName, PolicyName, VmName
from tasks.model.run import State

CONFIG_VARIABLE = "VMFERRY_CONFIG"
DEFAULT_PATHS = (Path("vmferry.toml"), Path("/etc/vmferry/vmferry.toml"))
CREDENTIALS_VARIABLE = "CREDENTIALS_DIRECTORY"
DEFAULT_SECRETS = Path("/run/secrets")
ENV_PREFIX = "VMFERRY_"
NOT_SETTINGS = ("VMFERRY_CONFIG", "VMFERRY_LAB", "VMFERRY_TEST")
"""Variables with the prefix that are not settings (the configuration's path, the test lab's own)."""

BROKER_SCHEMES = ("redis", "rediss", "sentinel", "redis+socket", "unix")
LIBVIRT_URI = r"^(qemu|test)(\+(ssh|tls|tcp|unix|libssh2|libssh))?://"


class HostSettings(Section):
    """One host of the inventory."""

    uri: Annotated[str, StringConstraints(pattern=LIBVIRT_URI)]
    """How a worker reaches its libvirt daemon."""
    peer_uri: Annotated[str, StringConstraints(pattern=LIBVIRT_URI)] | None = None
    """How the other hosts' libvirt daemons reach it; ``uri`` when absent."""
    migration_address: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.:_-]+$")] | None = None
    """Address or name for the migration traffic; the destination's host name, as libvirt knows it, when absent."""
    max_outgoing: int = Field(2, ge=0, le=1000)
    """Migrations leaving this host at the same time; 0: none may leave."""
    max_incoming: int = Field(2, ge=0, le=1000)
    """Migrations arriving at this host at the same time; 0: none may arrive."""
    bandwidth_mib_s: int = Field(0, ge=0)
    """What all that leave it may use together, and as much all that arrive, MiB/s; 0: no limit."""


class PolicySettings(Section):
    """Named convergence settings."""

    max_downtime_ms: int = Field(300, ge=1, le=2_000_000)
    """Longest pause that QEMU may plan for the switch-over, milliseconds."""
    downtime_steps_ms: list[Annotated[int, Field(ge=1)]] = Field(default_factory=lambda: [25, 75, 150])
    """Shorter pauses that are tried first, milliseconds; those not below ``max_downtime_ms`` are left out. A guest that
    changes little of its memory never sees the longer ones."""
    passes_per_step: int = Field(2, ge=1)
    """Passes over the memory after which the next, longer pause is allowed."""
    bandwidth_mib_s: int = Field(0, ge=0)
    """Limit of the migration's bandwidth in MiB/s, over all that it copies; 0: none."""
    auto_converge: bool = False
    """Let QEMU slow the guest's CPUs down when memory is dirtied faster than it is sent."""
    completion_timeout_s: float = Field(0.0, ge=0)
    """How long the transfer may take, seconds; 0: as long as it takes."""
    completion_s_per_gib: float = Field(0.0, ge=0)
    """The same for each GiB of memory and copied disks, one GiB at least; the shorter of both counts."""
    stall_timeout_s: float = Field(0.0, ge=0)
    """How long what remains to be sent may fail to become less than it ever was, seconds; 0: for ever."""
    on_timeout: Literal["abort", "pause", "post-copy"] = "abort"
    """When one of these times is over: ``abort`` leaves the VM where it is; ``pause`` lets it stand still until it has
    arrived, and aborts when that takes twice as long again; ``post-copy`` lets it run on the destination at once, and
    fetches its memory as it is needed: from there on there is no way back, and a host that fails takes the VM along."""
    post_copy_after_passes: int = Field(0, ge=0)
    """Switch to post-copy after so many passes over the memory; 0: never, unless ``on_timeout`` says so."""
    post_copy_recovery_s: float = Field(600.0, ge=0)
    """How long a post-copy that stands still, because the link is lost, is helped before a person is asked, seconds."""
    stall_after_s: float = Field(60.0, gt=0)
    """Seconds without any progress after which the record says ``stalled``."""
    shut_down_timeout_s: float = Field(300.0, gt=0)
    """How long a guest may take that was asked to shut down, where that is allowed, seconds."""

    @property
    def asks_for_post_copy(self) -> bool:
        """Whether it may switch to post-copy."""
        return self.post_copy_after_passes > 0 or self.on_timeout == "post-copy"


class WebhookSettings(Section):
    """Where another system is told of events."""

    url: Annotated[str, StringConstraints(pattern=r"^https?://[^/\s]+(/\S*)?$")]
    """Where each is sent by POST."""
    secret: SecretStr = Field(min_length=16)
    """What the signature is made with; at least 16 characters."""
    kinds: list[Annotated[str, StringConstraints(pattern="^(migration|drain)$")]] = Field(
        default_factory=lambda: ["migration", "drain"]
    )
    """Events of these kinds only."""
    states: list[str] = Field(default_factory=list)
    """Only changes to these states, of migrations or drains; all when empty."""
    timeout_s: float = Field(10.0, gt=0, le=60)
    """How long the other side may take, seconds."""
    give_up_s: float = Field(86_400.0, gt=0)
    """An event that cannot be delivered is tried again until it is so old, seconds."""

    @field_validator("states")
    @classmethod
    def _known_states(cls, states: list[str]) -> list[str]:
        known = {*map(str, State), *map(str, DrainState)}
        if unknown := sorted(set(states) - known):
            raise ValueError(f"{', '.join(unknown)}: no state of a migration or a drain: {', '.join(sorted(known))}")
        return states


class GroupSettings(Section):
    """VMs that drains keep on one host, or on different ones."""

    vms: list[VmName] = Field(min_length=1)
    """Names or UUIDs."""
    keep: Literal["together", "apart"] = "apart"
    """``apart``: no two on one host; ``together``: all on one."""


class PlacementSettings(Section):
    """How full hosts may become by VMs of drains."""

    memory_reserve_mib: int = Field(1024, ge=0)
    """Memory of each host that stays free, MiB."""
    vcpu_overcommit: float = Field(4.0, gt=0)
    """Virtual CPUs of all its VMs that run, for each CPU of a host."""


class FlowerSettings(Section):
    """Flower, the web page that operators watch."""

    address: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(5555, ge=0, le=65535)
    """Port to listen on; 0: any free one."""
    credentials: list[SecretStr] = Field(default_factory=list)
    """Who may use it: ``name:password`` each. Whoever may can send any task: this commands every host."""
    certificate: str = ""
    """PEM file of a TLS certificate; with ``key`` Flower speaks HTTPS."""
    key: str = ""
    """PEM file of the certificate's key."""
    url_prefix: Annotated[str, StringConstraints(pattern=r"^(/[A-Za-z0-9_.-]+)*/?$")] = ""
    """Path below which a proxy shows it, for example ``/flower``."""
    read_only: bool = False
    """Nothing can be revoked, cancelled or sent."""
    metrics_open: bool = False
    """Let Prometheus read ``/metrics`` without credentials."""
    max_tasks: int = Field(10_000, ge=100, le=10_000_000)
    """Tasks kept in memory, about 6 KiB each; the oldest go first."""
    state_file: str = ""
    """Where its memory is kept; ``flower`` in ``$STATE_DIRECTORY`` or in the user's state directory when empty."""
    save_interval_s: float = Field(30.0, ge=1)
    """How often that is written, seconds."""

    @field_validator("credentials")
    @classmethod
    def _name_and_password(cls, values: list[SecretStr]) -> list[SecretStr]:
        for value in values:
            text = value.get_secret_value()
            name, _, password = text.partition(":")
            # Flower cannot compare others, and browsers do not agree on how to send them.
            if not name or not password or not text.isascii() or not text.isprintable():
                raise ValueError("each must be name:password, of printable ASCII characters")
        return values

    @model_validator(mode="after")
    def _certificate_with_key(self) -> FlowerSettings:
        if bool(self.certificate) != bool(self.key):
            raise ValueError("certificate and key go together")
        return self


class Settings(BaseSettings):
    """Everything vmferry can be told."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    broker_url: str = "redis://127.0.0.1:6379/0"
    """Redis as broker: redis://, rediss://, sentinel://, or redis+socket:///path. Use a db of its own."""
    result_backend: str = ""
    """Redis as Celery's result store; the broker's when empty."""
    record_url: str = ""
    """Redis for run records, tokens and locks; the broker's when empty."""
    sentinel_master: str = "mymaster"
    """Name of the master, with sentinel:// only."""
    hosts: dict[HostName, HostSettings] = Field(default_factory=dict)
    """The inventory; queue messages can name nothing else."""
    policies: dict[PolicyName, PolicySettings] = Field(default_factory=dict)
    """Named policies; ``default`` always exists."""
    links: dict[PolicyName, LinkSettings] = Field(default_factory=dict)
    """Links that several hosts share."""
    pools: dict[PoolPlace, PoolSettings] = Field(default_factory=dict)
    """Storage pools that not everybody may use at the same time."""
    groups: dict[PolicyName, GroupSettings] = Field(default_factory=dict)
    """VMs that belong together, or apart, when drains move them."""
    recurring_drains: dict[RecurringName, RecurringDrainSettings] = Field(default_factory=dict)
    """Drains that begin by themselves."""
    webhooks: dict[PolicyName, WebhookSettings] = Field(default_factory=dict)
    """Other systems that are told of events."""
    placement: PlacementSettings = Field(default_factory=PlacementSettings)
    """Where VMs of drains may go."""
    flower: FlowerSettings = Field(default_factory=FlowerSettings)
    """Flower."""
    max_total: int = Field(16, ge=1, le=10_000)
    """Migrations in flight at the same time, over all hosts."""
    retention_days: float = Field(30.0, gt=0)
    """How long finished records and results are kept, days."""
    events_kept: int = Field(20_000, ge=100, le=10_000_000)
    """About how many events the stream holds, half a KiB each; the oldest go first."""
    lease_s: float = Field(12.0, ge=1)
    """A step's owner renews this lease; when it ends another worker may adopt the migration, seconds."""
    reconcile_period_s: float = Field(5.0, gt=0)
    """How often records are looked over for expired leases and hand-overs, seconds."""
    hand_over_s: float = Field(10.0, gt=0)
    """How long a sent step may take to be claimed before it is sent again, seconds."""
    connect_timeout_s: float = Field(10.0, gt=0)
    """How long opening a connection to a host may take, seconds."""
    unreachable_timeout_s: float = Field(300.0, ge=0)
    """How long rollback waits for an unreachable host before it asks for attention, seconds."""
    progress_period_s: float = Field(0.5, gt=0)
    """How often a transfer's statistics are read, seconds."""
    step_concurrency: int = Field(32, ge=1, le=1000)
    """Threads of a steps worker."""
    step_workers: int = Field(1, ge=1, le=1000)
    """How many steps workers there are; no limit of migrations may be above the threads of all of them together."""
    control_concurrency: int = Field(4, ge=1, le=100)
    """Threads of a control worker."""
    log_format: Literal["text", "json"] = "text"
    """One readable line or one JSON object a log line."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @field_validator("broker_url", "result_backend", "record_url")
    @classmethod
    def _known_scheme(cls, value: str) -> str:
        scheme = value.split("://", 1)[0]
        if value and ("://" not in value or scheme not in BROKER_SCHEMES):
            raise ValueError(f"must be one of {', '.join(s + '://' for s in BROKER_SCHEMES)}")
        return value

    @model_validator(mode="after")
    def _known_hosts(self) -> Settings:
        for name, link in self.links.items():
            if unknown := sorted(set(link.hosts) - set(self.hosts)):
                raise ValueError(f"links.{name}.hosts: {', '.join(unknown)} not in the inventory")
        for name, drain in self.recurring_drains.items():
            if unknown := sorted({drain.host, *drain.to} - set(self.hosts)):
                raise ValueError(f"recurring_drains.{name}: {', '.join(unknown)} not in the inventory")
            if drain.policy not in self.policies:
                raise ValueError(f"recurring_drains.{name}.policy: there is no policy {drain.policy}")
        for place in self.pools:
            host, slash, _ = place.partition("/")
            if slash and host not in self.hosts:
                raise ValueError(f"pools.{place}: {host} is not in the inventory")
        return self

    @model_validator(mode="after")
    def _within_slots(self) -> Settings:
        """Certain from the configuration alone; how many workers really run, only ``vmferry doctor`` can see."""
        slots = self.step_workers * self.step_concurrency
        caps = {"max_total": self.max_total}
        for name, host in self.hosts.items():
            caps |= {f"hosts.{name}.max_outgoing": host.max_outgoing, f"hosts.{name}.max_incoming": host.max_incoming}
        caps |= {f"links.{name}.max_transfers": link.max_transfers for name, link in self.links.items()}
        caps |= {f"pools.{place}.max_transfers": pool.max_transfers for place, pool in self.pools.items()}
        if above := [f"{key} = {cap}" for key, cap in caps.items() if cap > slots]:
            had = f"{self.step_workers} steps worker(s) of {self.step_concurrency} threads can have under way: {slots}"
            raise ValueError(f"{', '.join(above)} is more than {had} (step_workers × step_concurrency)")
        return self

    @model_validator(mode="after")
    def _one_home(self) -> Settings:
        home: dict[str, str] = {}
        for name, group in self.groups.items():
            for vm in group.vms if group.keep == "together" else ():
                if home.setdefault(vm, name) != name:
                    raise ValueError(f"groups.{name}.vms: {vm} is kept together with group {home[vm]} already")
        return self

    @model_validator(mode="before")
    @classmethod
    def _default_policy(cls, values: Any) -> Any:
        if isinstance(values, dict):
            policies = values.setdefault("policies", {})
            if isinstance(policies, dict):
                policies.setdefault("default", {})
        return values

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment wins over secrets, and these over the file, whose values arrive as arguments."""
        return env_settings, SecretsSettingsSource(settings_cls, secrets_dir=find_secrets()), init_settings

    def policy(self, name: str) -> PolicySettings:
        """The named policy; a record may name one that was since removed, then ``default``."""
        return self.policies.get(name, self.policies["default"])

    @property
    def retention_s(self) -> int:
        """Retention in whole seconds, for Redis."""
        return int(self.retention_days * 86400)


def find_secrets() -> list[Path]:
    """The folders whose files ``vmferry_<setting>`` are settings; a later one wins."""
    folders = [DEFAULT_SECRETS]
    if named := os.environ.get(CREDENTIALS_VARIABLE):
        folders.append(Path(named))
    return [folder for folder in folders if os.access(folder, os.R_OK | os.X_OK) and folder.is_dir()]


def find_config() -> Path | None:
    """The configuration file that would be read, None when there is none.

    Raises:
        ConfigurationError: ``CONFIG_NOT_FOUND`` when VMFERRY_CONFIG names a file that does not exist.
    """
    named = os.environ.get(CONFIG_VARIABLE)
    if named:
        if not Path(named).is_file():
            raise ConfigurationError(
                "CONFIG_NOT_FOUND", f"{CONFIG_VARIABLE} names {named}, which is no file", "correct or unset it"
            )
        return Path(named)
    return next((path for path in DEFAULT_PATHS if path.is_file()), None)


def load_settings(path: Path | None = None) -> Settings:
    """Read and check the configuration.

    Raises:
        ConfigurationError: ``CONFIG_NOT_FOUND``, ``CONFIG_UNREADABLE`` (not TOML, no permission) or ``CONFIG_INVALID``
            (unknown key, bad value; the message names each key), ``SECRET_UNREADABLE``.
    """
    chosen = path or find_config()
    values = _read_toml(chosen) if chosen else {}
    _refuse_unknown_variables()
    try:
        return Settings(**values)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False))
        raise ConfigurationError(
            "CONFIG_INVALID", f"{chosen or 'environment'}: {problems}", "see docs/settings.md"
        ) from None
    except ValueError as error:  # pydantic-settings: a value that is not the JSON it must be, a file it cannot read
        if isinstance(cause := error.__cause__, OSError):
            raise ConfigurationError(
                "SECRET_UNREADABLE", f"{cause.filename}: {cause.strerror}", "let the user that vmferry runs as read it"
            ) from None
        raise ConfigurationError("CONFIG_INVALID", f"environment: {error}", "see docs/settings.md") from None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError("CONFIG_UNREADABLE", f"{path}: {error}", "correct the file") from None


def _refuse_unknown_variables() -> None:
    for name in os.environ:
        if not name.startswith(ENV_PREFIX) or name.startswith(NOT_SETTINGS):
            continue
        field = name.removeprefix(ENV_PREFIX).split("__", 1)[0].lower()
        if field not in Settings.model_fields:
            raise ConfigurationError(
                "CONFIG_INVALID", f"{name}: no such setting in the environment", "see docs/settings.md"
            )


def without_password(url: str) -> str:
    """The URL as it may be shown or logged."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    host = parts.netloc.rsplit("@", 1)[1]
    user = parts.username or ""
    return urlunsplit(parts._replace(netloc=f"{user}:***@{host}"))
