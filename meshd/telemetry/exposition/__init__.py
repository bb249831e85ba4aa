"""Metric families in the formats that Prometheus reads: text, OpenMetrics, protobuf. Pure.

`meshd.telemetry.service_metrics` adds samples to families, `meshd.telemetry.metrics` chooses the
format by the Accept field of the scrape (`formats`).

Belongs here: labels, the buckets of histograms (`histograms`), and the encoders (`text`,
`protobuf`). Does not belong here: which metrics exist.
"""
