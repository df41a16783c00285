"""API priority and fairness: `classify` says to which flow a request belongs, `width` how much it takes, `level` lets the requests of
one priority level take turns, `flow_control` puts them together and shares the server's seats among the levels."""
