"""The commands of `skylink`, one a file. At the top they import nothing that takes time."""
