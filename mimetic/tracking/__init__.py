"""Tracking: trials mirrored from their journals into MLflow, and the only place that imports it.

Workers never see MLflow. One process, the coordinator, creates the store, the experiment and every run up
front, and copies journals into them in batches: one writer, so no race for a fresh database.
"""
