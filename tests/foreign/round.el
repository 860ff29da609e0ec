;;; One round of Emacs' dap-mode on a running job: what a person does with its keys.
;;; usage: emacs --batch -L ... -l round.el -- ADAPTER FILE LINE FOLDER
;;; Prints what it saw, one line each.

(package-initialize)
(require 'dap-mode)

(pcase-let ((`(,_ ,adapter ,file ,line ,folder) command-line-args-left))
  (setq command-line-args-left nil
        default-directory folder
        lsp-session-file (make-temp-file "session")
        dap-breakpoints-file (make-temp-file "breakpoints")
        dap-utils-extension-path (make-temp-file "extensions" t)
        dap-exception-breakpoints nil
        stops 0
        ended nil)

  (defun wait-for (condition)
    "Serves what arrives until CONDITION holds."
    (let ((deadline (+ (float-time) 40)))
      (while (not (funcall condition))
        (when (> (float-time) deadline) (error "waited in vain"))
        (accept-process-output nil 0.05))))

  (defun place ()
    "FILE:LINE of the frame that dap-mode shows."
    (let ((frame (dap--debug-session-active-frame (dap--cur-session))))
      (when frame
        (format "%s:%s" (gethash "path" (gethash "source" frame)) (gethash "line" frame)))))

  (defun shown-in (number)
    "Waits until the stop of that number is shown; returns its place."
    (wait-for (lambda () (and (>= stops number) (place))))
    (place))

  (add-hook 'dap-stopped-hook (lambda (_) (setq stops (1+ stops))))
  (add-hook 'dap-terminated-hook (lambda (_) (setq ended t)))
  (find-file file)
  (goto-char (point-min))
  (forward-line (1- (string-to-number line)))
  (dap-breakpoint-add)
  (dap-start-debugging-noexpand
   (list :type "rdev" :request "attach" :name "rdev" :job "train"
         :dap-server-path (list adapter "dap")))
  (princ (format "breakpoint %s\n" (shown-in 1)))
  (let ((value nil))
    (dap--send-message
     (dap--make-request
      "evaluate"
      (list :expression "loss == step * 2"
            :frameId (gethash "id" (dap--debug-session-active-frame (dap--cur-session)))))
     (lambda (answer) (setq value (gethash "result" (gethash "body" answer))))
     (dap--cur-session))
    (wait-for (lambda () value))
    (princ (format "evaluate %s\n" value)))
  (dap-next (dap--cur-session))
  (princ (format "next %s\n" (shown-in 2)))
  (dap-continue (dap--cur-session) (dap--debug-session-thread-id (dap--cur-session)))
  (princ (format "breakpoint %s\n" (shown-in 3)))
  (dap-disconnect (dap--cur-session))
  (wait-for (lambda () ended))
  (princ "left\n"))
