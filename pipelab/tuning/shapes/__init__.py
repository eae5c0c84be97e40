"""The shape of a cluster: data, pipeline and tensor parallelism, by memory accounting and a cost model."""
