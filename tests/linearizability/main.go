// Command linearizability starts a server of etcd's v3 API, lets clients and watchers work on it while it is killed and started again,
// and then asks porcupine whether one order of all operations explains every answer, and whether the watches kept etcd's promises.
//
//	linearizability -endpoint 127.0.0.1:2379 -seconds 15 -kills 5 -- korch store serve --data-dir DIR --listen-client 127.0.0.1:2379
//
// Every write puts a value that no other write puts, so an event tells which operation made it: one whose client got no answer either
// stands in the event log and happened, or does not and never did.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

func main() {
	endpoint := flag.String("endpoint", "127.0.0.1:2379", "where the server listens")
	seconds := flag.Float64("seconds", 15, "how long clients work")
	kills := flag.Int("kills", 5, "how often the server is killed")
	clients := flag.Int("clients", 8, "how many clients work at a time")
	seed := flag.Int64("seed", time.Now().UnixNano(), "of what the clients do")
	flag.Parse()
	if err := run(*endpoint, *seconds, *kills, *clients, *seed, flag.Args()); err != nil {
		fmt.Fprintf(os.Stderr, "seed %d: %v\n", *seed, err)
		os.Exit(1)
	}
}

// A server is a process that can be killed and started again.
type server struct {
	command []string
	process *exec.Cmd
}

func (s *server) start() error {
	s.process = exec.Command(s.command[0], s.command[1:]...)
	s.process.Stdout, s.process.Stderr = os.Stderr, os.Stderr
	// It ends with us.
	s.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return s.process.Start()
}

func (s *server) kill() {
	_ = s.process.Process.Kill()
	_ = s.process.Wait()
}

func dial(endpoint string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Endpoints:            []string{endpoint},
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 5 * time.Second,
		Logger:               zap.NewNop(),
		BackoffWaitBetween:   10 * time.Millisecond,
	})
}

// awaitServer waits until the server answers.
func awaitServer(ctx context.Context, client *clientv3.Client) error {
	for ctx.Err() == nil {
		short, cancel := context.WithTimeout(ctx, time.Second)
		_, err := client.Get(short, "probe")
		cancel()
		if err == nil {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("the server does not answer: %w", ctx.Err())
}

func run(endpoint string, seconds float64, kills, clients int, seed int64, command []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	served := &server{command: command}
	if err := served.start(); err != nil {
		return err
	}
	defer func() { served.kill() }()
	probe, err := dial(endpoint)
	if err != nil {
		return err
	}
	defer probe.Close()
	if err := awaitServer(ctx, probe); err != nil {
		return err
	}
	watchers := startWatchers(ctx, endpoint)
	recorded := newHistory()
	working, stop := context.WithCancel(ctx)
	var workers sync.WaitGroup
	for number := range clients {
		workers.Go(func() { work(working, endpoint, recorded, number, rand.New(rand.NewSource(seed+int64(number)))) })
	}
	workers.Go(func() { compact(working, endpoint) })
	pause := time.Duration(seconds / float64(kills+1) * float64(time.Second))
	time.Sleep(pause)
	for range kills {
		served.kill()
		if err := served.start(); err != nil {
			stop()
			return err
		}
		if err := awaitServer(ctx, probe); err != nil {
			stop()
			return err
		}
		time.Sleep(pause)
	}
	stop()
	workers.Wait()
	if err := awaitServer(ctx, probe); err != nil {
		return err
	}
	last, err := probe.Put(ctx, keyOf(0), "the last")
	if err != nil {
		return err
	}
	events, err := watchers.collect(ctx, last.Header.Revision)
	if err != nil {
		return err
	}
	return check(recorded, events, "the last")
}

// compact forgets old revisions now and then.
func compact(ctx context.Context, endpoint string) {
	client, err := dial(endpoint)
	if err != nil {
		return
	}
	defer client.Close()
	for ctx.Err() == nil {
		time.Sleep(300 * time.Millisecond)
		short, cancel := context.WithTimeout(ctx, time.Second)
		if now, err := client.Get(short, "probe"); err == nil && now.Header.Revision > 2000 {
			_, _ = client.Compact(short, now.Header.Revision-2000)
		}
		cancel()
	}
}
