"""GPUs, as NVIDIA's DCGM exporter sees them."""

from dashboards.parts import Board, Query, Row, Steps, annotation, host_variable, lines, number, variable

GPU = 'host=~"$host", gpu=~"$gpu"'
LEGEND = "{{host}} GPU {{gpu}}"
# DCGM writes this range for "no such sensor" (INT64_MAX and a few below).
SENTINEL = "9.2e18"

BOARD = Board(
    name="gpu",
    title="AI-IDP: GPU",
    description="Load, memory, heat and faults of the GPUs. In the lab the values are a replayed recording.",
    variables=[
        host_variable("label_values(DCGM_FI_DEV_GPU_UTIL, host)"),
        variable("gpu", "GPU", 'label_values(DCGM_FI_DEV_GPU_UTIL{host=~"$host"}, gpu)'),
    ],
    annotations=[
        annotation(
            "Replayed, not measured",
            'count by (host) (DCGM_FI_DEV_GPU_UTIL{replay="true"})',
            "replayed recording on {{host}}, not a measurement",
        )
    ],
    rows=[
        Row(
            "Now",
            [
                number(
                    "Where the values come from",
                    "Machines without a GPU replay a recording, so that dashboards and alerts can be tried.",
                    "none",
                    Query(f'count(count(DCGM_FI_DEV_GPU_UTIL{{{GPU}, replay="true"}})) or vector(0)'),
                    words={"0": ("measured", "green"), "1": ("REPLAYED", "orange")},
                    steps=Steps(1, 1000),
                ),
                number(
                    "GPU busy",
                    "Share of time in which a kernel ran.",
                    "percent",
                    Query(f"DCGM_FI_DEV_GPU_UTIL{{{GPU}}}", LEGEND),
                    decimals=0,
                ),
                number(
                    "Memory in use",
                    "Share of the GPU's memory, what the driver reserves included.",
                    "percentunit",
                    Query(
                        f"1 - DCGM_FI_DEV_FB_FREE{{{GPU}}}"
                        f" / (DCGM_FI_DEV_FB_FREE{{{GPU}}} + DCGM_FI_DEV_FB_USED{{{GPU}}}"
                        f" + DCGM_FI_DEV_FB_RESERVED{{{GPU}}})",
                        LEGEND,
                    ),
                    decimals=0,
                    steps=Steps(0.9, 0.97),
                ),
                number(
                    "Temperature",
                    "Of the GPU's core.",
                    "celsius",
                    Query(f"DCGM_FI_DEV_GPU_TEMP{{{GPU}}}", LEGEND),
                    decimals=0,
                    steps=Steps(80, 88),
                ),
                number(
                    "Last Xid",
                    "Number of the last fault that the driver reported; 0 is none. Numbers are explained in NVIDIA's"
                    " list of Xid errors.",
                    "none",
                    Query(f"DCGM_FI_DEV_XID_ERRORS{{{GPU}}}", LEGEND),
                    words={"0": ("none", "green")},
                    steps=Steps(1, 1),
                ),
                number(
                    "Energy in this range",
                    "What the GPUs took from the mains in the range that the dashboard shows.",
                    "watth",
                    # DCGM counts millijoules.
                    Query(
                        f"sum(increase(DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{{{GPU}}}[$__range])) / 3.6e6", "{{host}}"
                    ),
                    decimals=0,
                ),
            ],
        ),
        Row(
            "Load and memory",
            [
                lines(
                    "GPU busy",
                    "Share of time in which a kernel ran, and in which memory was read or written.",
                    "percent",
                    Query(f"DCGM_FI_DEV_GPU_UTIL{{{GPU}}}", f"{LEGEND} kernels"),
                    Query(f"DCGM_FI_DEV_MEM_COPY_UTIL{{{GPU}}}", f"{LEGEND} memory"),
                    high=100,
                    width=12,
                ),
                lines(
                    "GPU memory",
                    "vLLM takes its share once, at its start; it does not grow afterwards.",
                    "mbytes",
                    Query(f"DCGM_FI_DEV_FB_USED{{{GPU}}}", f"{LEGEND} used"),
                    Query(f"DCGM_FI_DEV_FB_RESERVED{{{GPU}}}", f"{LEGEND} reserved"),
                    Query(f"DCGM_FI_DEV_FB_FREE{{{GPU}}}", f"{LEGEND} free"),
                    stacked=True,
                    width=12,
                ),
            ],
        ),
        Row(
            "Heat, power and clocks",
            [
                lines(
                    "Temperature",
                    "Core and memory. Cards without a sensor for the memory show the core only.",
                    "celsius",
                    Query(f"DCGM_FI_DEV_GPU_TEMP{{{GPU}}}", f"{LEGEND} core"),
                    Query(
                        f"DCGM_FI_DEV_MEMORY_TEMP{{{GPU}}} < {SENTINEL}",
                        f"{LEGEND} memory",
                        hardware="the recording and GeForce cards have no sensor for the memory",
                    ),
                    low=None,
                    steps=Steps(80, 88),
                ),
                lines(
                    "Power",
                    "What the card takes.",
                    "watt",
                    Query(f"DCGM_FI_DEV_POWER_USAGE{{{GPU}}}", LEGEND),
                ),
                lines(
                    "Clocks",
                    "A clock that falls under full load tells of heat or of a power limit.",
                    "hertz",
                    Query(f"DCGM_FI_DEV_SM_CLOCK{{{GPU}}} * 1e6", f"{LEGEND} SM"),
                    Query(f"DCGM_FI_DEV_MEM_CLOCK{{{GPU}}} * 1e6", f"{LEGEND} memory"),
                ),
            ],
        ),
        Row(
            "Faults",
            [
                lines(
                    "Xid",
                    "Number of the last fault that the driver reported.",
                    "none",
                    Query(f"DCGM_FI_DEV_XID_ERRORS{{{GPU}}}", LEGEND),
                    width=12,
                    height=6,
                ),
                lines(
                    "PCIe retries per minute",
                    "More than a few tell of a riser cable or a slot that does not keep up.",
                    "short",
                    Query(f"rate(DCGM_FI_DEV_PCIE_REPLAY_COUNTER{{{GPU}}}[$__rate_interval]) * 60", LEGEND),
                    width=12,
                    height=6,
                ),
            ],
        ),
    ],
)
