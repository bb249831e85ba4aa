"""Ports that by convention speak another protocol than HTTP. Pure.

`Service.passthrough_ports` uses them where the file does not say which ports speak HTTP.
"""

from typing import Final

WELL_KNOWN_PROTOCOLS: Final = {
    21: "FTP", 22: "SSH", 25: "SMTP", 53: "DNS", 110: "POP3", 143: "IMAP", 389: "LDAP", 445: "SMB",
    465: "SMTP", 587: "SMTP", 636: "LDAP", 993: "IMAP", 995: "POP3", 1433: "SQL Server",
    1521: "Oracle", 1883: "MQTT", 2049: "NFS", 2181: "ZooKeeper", 3306: "MySQL", 3389: "RDP",
    4222: "NATS", 5222: "XMPP", 5432: "PostgreSQL", 5671: "AMQP", 5672: "AMQP", 5900: "VNC",
    6379: "Redis", 6432: "PgBouncer", 8883: "MQTT", 9042: "Cassandra", 9092: "Kafka",
    11211: "memcached", 26257: "CockroachDB", 26379: "Redis Sentinel", 27017: "MongoDB",
    61616: "ActiveMQ",
}  # fmt: skip
"""The protocol by TCP port, from the registry of IANA and the defaults of the servers."""
