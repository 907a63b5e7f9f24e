"""Restores the samples of block v1 files with another engine and prints `metric,node,ts,bits` lines.

usage: other_engines.py pyarrow|duckdb BLOCKS_DIR
"""

import glob
import struct
import sys

engine, directory = sys.argv[1:]
rows = []
for samples in sorted(glob.glob(f"{directory}/*.samples.parquet")):
    series = samples.replace(".samples.parquet", ".series.parquet")
    if engine == "duckdb":
        import duckdb

        # The line of docs/formats/block-v1.md.
        rows += duckdb.sql(
            f"""
            SELECT metric, labels['node'], epoch_ms(ts),
                   coalesce(s.value, (s.value_int + d.base)::DOUBLE / power(10, d.scale)) AS value
            FROM '{samples}' s JOIN '{series}' d USING (series_id)
            """
        ).fetchall()
    else:
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        # The lines of docs/formats/block-v1.md.
        s = pq.read_table(samples)
        d = pq.read_table(series)
        at = pc.index_in(s["series_id"], d["series_id"])
        whole = pc.cast(pc.add(s["value_int"], pc.take(d["base"], at)), pa.float64(), safe=False)
        value = pc.coalesce(s["value"], pc.divide(whole, pc.power(10.0, pc.take(d["scale"], at))))
        metric = pc.take(d["metric"], at)
        node = pc.take(pc.map_lookup(d["labels"], pa.scalar("node"), "first"), at)
        ts = pc.cast(s["ts"], pa.int64())
        rows += zip(metric.to_pylist(), node.to_pylist(), ts.to_pylist(), value.to_pylist())

for metric, node, ts, value in rows:
    bits = struct.unpack("<Q", struct.pack("<d", value))[0]
    print(f"{metric},{node},{ts},{bits:016x}")
