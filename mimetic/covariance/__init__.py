"""Covariances of filters in factor form: sources, measurements, transfer, algebra, scales, files."""
