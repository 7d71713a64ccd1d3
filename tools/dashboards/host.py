"""One machine, or all: CPU, memory, disks, network."""

from dashboards.parts import Board, Query, Row, Steps, bars, host_variable, lines, listing, number

HOST = 'job="node", host=~"$host"'
DISKS = f'{HOST}, fstype!~"tmpfs|ramfs|squashfs|iso9660|vfat"'
NETWORK = f'{HOST}, device!~"lo|veth.*|br-.*|docker.*"'
DEVICES = f'{HOST}, device!~"loop.*|ram.*|zram.*|sr.*"'

BOARD = Board(
    name="host",
    title="AI-IDP: hosts",
    description="CPU, memory, disks and network of every machine of the platform.",
    variables=[host_variable('label_values(node_uname_info{job="node"}, host)')],
    rows=[
        Row(
            "Machines",
            [
                listing(
                    "Systems",
                    "What runs on each machine.",
                    "none",
                    Query(
                        f"max by (host, nodename, release, machine, pretty_name) (node_uname_info{{{HOST}}}"
                        f" * on (host) group_left (pretty_name) node_os_info{{{HOST}}})"
                    ),
                    {
                        "host": "host",
                        "pretty_name": "system",
                        "release": "kernel",
                        "machine": "architecture",
                    },
                    value="",
                    height=6,
                ),
                bars(
                    "Up for",
                    "Time since each machine was started. In the lab that is the machine the lab runs on.",
                    "s",
                    Query(f"node_time_seconds{{{HOST}}} - node_boot_time_seconds{{{HOST}}}", "{{host}}"),
                    width=6,
                    height=6,
                ),
                number(
                    "Clock off by",
                    "Estimated error of the worst clock. Certificates and graphs rely on clocks that agree.",
                    "s",
                    Query(f"max(abs(node_timex_offset_seconds{{{HOST}}}))"),
                    width=3,
                    height=6,
                    steps=Steps(0.1, 1),
                ),
                number(
                    "Killed for lack of memory",
                    "Processes that the kernel killed in the range that the dashboard shows.",
                    "none",
                    Query(f"sum(increase(node_vmstat_oom_kill{{{HOST}}}[$__range]))"),
                    width=3,
                    height=6,
                    decimals=0,
                    steps=Steps(1, 1),
                ),
            ],
        ),
        Row(
            "CPU and memory",
            [
                lines(
                    "CPU busy",
                    "Share of all cores that do something else than wait.",
                    "percentunit",
                    Query(
                        f'1 - avg by (host) (rate(node_cpu_seconds_total{{{HOST}, mode="idle"}}[$__rate_interval]))',
                        "{{host}}",
                    ),
                    high=1,
                ),
                lines(
                    "Load per core",
                    "Processes that run or want to, by core (mean of 5 minutes). Above 1 they wait for each other.",
                    "short",
                    Query(
                        f"node_load5{{{HOST}}} / on (host) count by (host)"
                        f' (node_cpu_seconds_total{{{HOST}, mode="idle"}})',
                        "{{host}}",
                    ),
                    steps=Steps(1, 2),
                ),
                lines(
                    "CPU waiting for disks",
                    "Share of time in which cores had nothing to do because a disk had not answered.",
                    "percentunit",
                    Query(
                        f'avg by (host) (rate(node_cpu_seconds_total{{{HOST}, mode="iowait"}}[$__rate_interval]))',
                        "{{host}}",
                    ),
                    high=1,
                ),
                lines(
                    "Memory in use",
                    "Share of RAM that programs can't get without something being thrown out or swapped.",
                    "percentunit",
                    Query(
                        f"1 - node_memory_MemAvailable_bytes{{{HOST}}} / node_memory_MemTotal_bytes{{{HOST}}}",
                        "{{host}}",
                    ),
                    high=1,
                    steps=Steps(0.85, 0.95),
                ),
                lines(
                    "Memory available",
                    "RAM that a new program could get.",
                    "bytes",
                    Query(f"node_memory_MemAvailable_bytes{{{HOST}}}", "{{host}}"),
                ),
                lines(
                    "Swapped in and out",
                    "Pages per second. An engine whose weights are swapped is slow beyond use.",
                    "short",
                    Query(f"rate(node_vmstat_pswpin{{{HOST}}}[$__rate_interval])", "{{host}} in"),
                    Query(f"rate(node_vmstat_pswpout{{{HOST}}}[$__rate_interval])", "{{host}} out"),
                ),
            ],
        ),
        Row(
            "Disks",
            [
                bars(
                    "File systems",
                    "Share in use. The models lie on the GPU server.",
                    "percentunit",
                    Query(
                        "max by (host, mountpoint)"
                        f" (1 - node_filesystem_avail_bytes{{{DISKS}}} / node_filesystem_size_bytes{{{DISKS}}})",
                        "{{host}} {{mountpoint}}",
                    ),
                    high=1,
                    steps=Steps(0.8, 0.9),
                ),
                lines(
                    "Read and written",
                    "Bytes per second, all disks together.",
                    "binBps",
                    Query(
                        f"sum by (host) (rate(node_disk_read_bytes_total{{{DEVICES}}}[$__rate_interval]))",
                        "{{host}} read",
                    ),
                    Query(
                        f"sum by (host) (rate(node_disk_written_bytes_total{{{DEVICES}}}[$__rate_interval]))",
                        "{{host}} written",
                    ),
                ),
                lines(
                    "Disk busy",
                    "Share of time in which the busiest disk worked on something.",
                    "percentunit",
                    Query(
                        f"max by (host) (rate(node_disk_io_time_seconds_total{{{DEVICES}}}[$__rate_interval]))",
                        "{{host}}",
                    ),
                ),
            ],
        ),
        Row(
            "Network and sensors",
            [
                lines(
                    "Network",
                    "Bytes per second on the cards; bridges and containers are left out.",
                    "binBps",
                    Query(
                        f"sum by (host) (rate(node_network_receive_bytes_total{{{NETWORK}}}[$__rate_interval]))",
                        "{{host}} in",
                    ),
                    Query(
                        f"sum by (host) (rate(node_network_transmit_bytes_total{{{NETWORK}}}[$__rate_interval]))",
                        "{{host}} out",
                    ),
                ),
                lines(
                    "Network errors",
                    "Packets per second that were damaged or dropped.",
                    "pps",
                    Query(
                        f"sum by (host) (rate(node_network_receive_errs_total{{{NETWORK}}}[$__rate_interval])"
                        f" + rate(node_network_transmit_errs_total{{{NETWORK}}}[$__rate_interval]))",
                        "{{host}} damaged",
                    ),
                    Query(
                        f"sum by (host) (rate(node_network_receive_drop_total{{{NETWORK}}}[$__rate_interval])"
                        f" + rate(node_network_transmit_drop_total{{{NETWORK}}}[$__rate_interval]))",
                        "{{host}} dropped",
                    ),
                ),
                lines(
                    "Hottest sensor",
                    "Of each machine, the hottest sensor that its mainboard, CPU or disks have.",
                    "celsius",
                    Query(
                        f"max by (host) (node_hwmon_temp_celsius{{{HOST}}})",
                        "{{host}}",
                        hardware="containers have no sensors",
                    ),
                    low=None,
                    steps=Steps(85, 95),
                    no_value="no sensor (a container has none)",
                ),
            ],
        ),
    ],
)
