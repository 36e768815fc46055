"""Where the desired state comes from: files that users name, later a repository that is polled and the admin API.

Everything here reads; nothing decides what is served with which settings: :mod:`inferd.control.resolve` does.
"""
