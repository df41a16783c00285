package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// An event as a watcher was told of it.
type event struct {
	revision   int64
	key, value string
	isDelete   bool
}

// A watcher watches everything from the first revision on and checks what it is told.
type watcher struct {
	lock   sync.Mutex
	events []event
	err    error
	done   context.CancelFunc
	ended  sync.WaitGroup
}

type watchers []*watcher

// startWatchers starts one that stays, and two that leave after some time and come back where they were.
func startWatchers(ctx context.Context, endpoint string) watchers {
	var all watchers
	for _, stay := range []time.Duration{time.Hour, 700 * time.Millisecond, 150 * time.Millisecond} {
		inner, cancel := context.WithCancel(ctx)
		one := &watcher{done: cancel}
		one.ended.Go(func() {
			for inner.Err() == nil && one.failure() == nil {
				one.watch(inner, endpoint, stay)
			}
		})
		all = append(all, one)
	}
	return all
}

func (w *watcher) failure() error {
	w.lock.Lock()
	defer w.lock.Unlock()
	return w.err
}

func (w *watcher) last() int64 {
	w.lock.Lock()
	defer w.lock.Unlock()
	if len(w.events) == 0 {
		return 1
	}
	return w.events[len(w.events)-1].revision
}

// watch opens one watch for some time; the client library reconnects it meanwhile.
func (w *watcher) watch(ctx context.Context, endpoint string, stay time.Duration) {
	client, err := dial(endpoint)
	if err != nil {
		return
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, stay)
	defer cancel()
	answers := client.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(w.last()+1), clientv3.WithProgressNotify(), clientv3.WithPrevKV())
	ticks := time.NewTicker(50 * time.Millisecond)
	defer ticks.Stop()
	bookmark := int64(0)
	for {
		select {
		case answer, isOpen := <-answers:
			if !isOpen {
				return
			}
			if err := answer.Err(); err != nil {
				if ctx.Err() == nil {
					w.fail(err)
				}
				return
			}
			if answer.IsProgressNotify() {
				bookmark = answer.Header.Revision
				if last := w.last(); bookmark < last {
					w.fail(fmt.Errorf("progress %d after revision %d", bookmark, last))
				}
				continue
			}
			w.take(answer, bookmark)
		case <-ticks.C:
			// It fails while the server is down.
			_ = client.RequestProgress(ctx)
		}
	}
}

func (w *watcher) fail(err error) {
	w.lock.Lock()
	defer w.lock.Unlock()
	if w.err == nil {
		w.err = err
	}
}

// take checks one answer: revisions rise by one (every write is below the prefix), none is split, none comes after a bookmark of it.
func (w *watcher) take(answer clientv3.WatchResponse, bookmark int64) {
	last := w.last()
	w.lock.Lock()
	defer w.lock.Unlock()
	for number, one := range answer.Events {
		revision := one.Kv.ModRevision
		switch {
		case revision <= bookmark:
			w.err = fmt.Errorf("revision %d after progress %d", revision, bookmark)
		case number == 0 && revision == last:
			w.err = fmt.Errorf("revision %d was split or repeated", revision)
		case revision != last && revision != last+1:
			w.err = fmt.Errorf("revision %d follows %d", revision, last)
		case one.Type == clientv3.EventTypeDelete && one.PrevKv == nil:
			w.err = fmt.Errorf("a deletion at %d without the state before", revision)
		}
		last = revision
		w.events = append(w.events, event{revision, string(one.Kv.Key), string(one.Kv.Value), one.Type == clientv3.EventTypeDelete})
	}
}

// collect waits until every watcher has seen `revision`, and returns what they have all been told.
func (all watchers) collect(ctx context.Context, revision int64) ([]event, error) {
	for _, one := range all {
		for one.last() < revision && one.failure() == nil && ctx.Err() == nil {
			time.Sleep(20 * time.Millisecond)
		}
		one.done()
		one.ended.Wait()
		if err := one.failure(); err != nil {
			return nil, fmt.Errorf("watch: %w", err)
		}
		if one.last() < revision {
			return nil, fmt.Errorf("a watcher stopped at %d of %d", one.last(), revision)
		}
		if !slices.Equal(one.events, all[0].events) {
			return nil, fmt.Errorf("two watchers were told different stories")
		}
	}
	return all[0].events, nil
}
