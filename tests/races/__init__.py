"""Races: two things at once, in the orders that are hard to come by.

Where each is covered. `stepped` modules try every order that one or two
switches between two threads can make, see `stepping`; the others force one
order, or let threads run for some rounds, with switches as usual and as many
as can be.

    close / send                        stepped_connection; close_races; random_races
    close / receive                     stepped_inboxes "get / close"; close_races
    close / close, close / peer's       stepped_connection; close_races
    close / end of TCP, close / abort   stepped_connection; close_races
    send / end of TCP, send / abort     stepped_connection
    send / send, send / flush           stepped_connection
    fragments / a group's message       stepped_connection "fragments / share"
    waiting for room / its coming       stepped_connection "waiting send / ..."
    wait_closed / the end               stepped_connection "waiting for the end"
    when_ended / the end                stepped_connection "hearing of the end"
    on_close / on_text                  stepped_inboxes "put / run"; close_races
    reading pauses / callbacks go on    stepped_inboxes; stepped_connection "reading"
    put / run, put / go_on              stepped_inboxes
    receive / receive                   stepped_inboxes "get / get"
    submit, unblock, stop / rest        stepped_workers
    linger / submit                     stepped_workers
    sleep / call, flush, empty queue    stepped_workers "waking the loop"
    a lane's end / its next             stepped_owners "lanes"
    group add, discard, send / the end  stepped_owners "groups"
    acquire / release / reap            stepped_owners "engines"
    attach, detach / matching           stepped_owners "routes"
    stop / what it waits for            stepped_owners; close_races
    stop / stop / start                 stepped_owners "a stop that waited"; close_races
    stop / accept                       close_races
    stop, client lost / a resource      stepped_requests "a resource"; close_races
    a WSGI body, response / the client  stepped_requests "an application"
    cancelling a timer / its call       test_engine_timers: both are in one thread
    retry / close, retry / send         retry_races
    fork / anything that has a lock     fork_races
"""
