"""Storms: many callers at once, watched throughout, with figures that show the storm was one."""
