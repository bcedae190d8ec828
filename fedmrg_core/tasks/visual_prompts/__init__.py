"""Prompts for a frozen vision model, made for each image by a generator that all centres share: classes and masks."""
